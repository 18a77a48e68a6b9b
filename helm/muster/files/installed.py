"""The program of `helm test`: checks that a release is reachable and ready. Arguments: RELEASE, NAMESPACE."""

import os
import ssl
import sys
import time
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
PATIENCE_SECONDS = 60
release, namespace = sys.argv[1:]
server = f"https://{os.environ['KUBERNETES_SERVICE_HOST']}:{os.environ['KUBERNETES_SERVICE_PORT']}"
checks = {
    "the operator is ready": f"http://{release}-operator.{namespace}:8081/readyz",
    "the extender is ready": f"http://{release}-scheduler.{namespace}:8082/readyz",
    "the API server serves DLJobs": f"{server}/apis/muster.dev/v1alpha1/namespaces/{namespace}/dljobs?limit=1",
}


def error_of(url: str) -> str:
    request = Request(url)
    context = None
    if url.startswith(server):
        request.add_header("Authorization", f"Bearer {(ACCOUNT / 'token').read_text()}")
        context = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
    try:
        with urlopen(request, timeout=10, context=context) as response:
            return "" if response.status == 200 else f"HTTP {response.status}"
    except HTTPError as error:
        return f"HTTP {error.code}: {error.read(500).decode(errors='replace')}"
    except OSError as error:
        return str(error)


end = time.monotonic() + PATIENCE_SECONDS
while failures := {check: error for check, url in checks.items() if (error := error_of(url))}:
    if time.monotonic() > end:
        sys.exit("\n".join(f"NOT: {check} ({checks[check]}): {error}" for check, error in failures.items()))
    time.sleep(1)
print("\n".join(checks))
