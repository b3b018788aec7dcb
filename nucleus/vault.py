"""`python -m nucleus.vault csr`: cryptography of the nucleus, in a process that ends, so the daemon never loads it.

Makes a P-256 key and a certificate signing request; standard output is {"privateKey", "request"}, both PEM. Exit 3 means
that the package `cryptography` is not installed.
"""

from __future__ import annotations

import json
import sys

try:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
except ImportError:
    print("cannot make a key: the package `cryptography` is not installed (pip install cryptography)", file=sys.stderr)
    sys.exit(3)


def csr() -> dict[str, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return {
        "privateKey": private.decode(),
        "request": request.public_bytes(serialization.Encoding.PEM).decode(),
    }


if __name__ == "__main__":
    if sys.argv[1:] != ["csr"]:
        print("usage: python -m nucleus.vault csr", file=sys.stderr)
        sys.exit(2)
    json.dump(csr(), sys.stdout)
