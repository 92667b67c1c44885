"""What holds for every test: one thread a process, no network, no real AWS account."""

import os
import signal

import startup.sitecustomize  # noqa: F401  # as in the processes that the tests start

from rlvr_kit.paths import PROJECT

os.environ |= {
    "OMP_NUM_THREADS": "1",  # the tests run in two processes on two cores
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "PYTHONPATH": f"{PROJECT}:{PROJECT / 'tests' / 'startup'}",  # kernels and subprocesses start in other folders
}
# Whoever starts the tests in the background may let them ignore Ctrl-C or the end of a terminal; some tests send both.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
    os.environ.pop(name, None)
if folder := os.environ.get("RLVR_KIT_GSM8K"):
    os.environ["RLVR_KIT_GSM8K"] = os.path.abspath(folder)
