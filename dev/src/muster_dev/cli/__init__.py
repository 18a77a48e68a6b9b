"""The command line of the development bed: one module a verb, which `muster_dev.verbs` names."""
