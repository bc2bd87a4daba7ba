"""What looks like a secret is left out, and what does not stays."""

from __future__ import annotations

import pytest

from on_node.diagnosis.redact import OUT, redacted

SECRET = "s3cr3t-7f3a9c-value"


@pytest.mark.parametrize(
    "line",
    [
        f"WANDB_API_KEY={SECRET}",
        f"export AWS_SECRET_ACCESS_KEY='{SECRET}'",
        f"HF_TOKEN: {SECRET}",
        f'{{"password": "{SECRET}", "user": "alice"}}',
        f"DB_PASSWORD={SECRET} python train.py",
        f"python train.py --api-key {SECRET} --lr 1e-4",
        f"Authorization: Bearer {SECRET}",
        f"fatal: unable to access 'https://alice:{SECRET}@git.example/x.git'",
        f'declare -x SLURM_JWT="eyJhbGciOiJIUzI1NiJ9.{SECRET}.abc"',
        f"login with hf_{SECRET.replace('-', '')}",
        f"key ghp_{SECRET.replace('-', '')}",
        f"sk-{SECRET}abcdef",
        f"-----BEGIN RSA PRIVATE KEY----- {SECRET}",
        f"SSH_PRIVATE_KEY={SECRET}",
    ],
)
def test_a_secret_is_left_out(line: str) -> None:
    shown = redacted(line)
    assert SECRET not in shown
    assert SECRET.replace("-", "") not in shown
    assert OUT in shown


@pytest.mark.parametrize(
    "line",
    [
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
        "tokens: 8192 tokens/s: 10432.5 max_tokens=4096",
        "KeyError: 'input_ids'",
        "NVRM: Xid (PCI:0000:44:00): 79, pid=1205, GPU has fallen off the bus.",
        "srun: error: cn02: task 1: Exited with exit code 1",
        "NCCL WARN Connect to 10.38.10.112<21724> failed : Connection refused",
        "error: Munge decode failed: Invalid credential",
        "FileNotFoundError: [Errno 2] No such file or directory: '/data/set1/train.json'",
    ],
)
def test_what_is_none_stays(line: str) -> None:
    assert redacted(line) == line
