"""A certificate for https on localhost, and the local authority that signed it: made once per data folder.

The certificate also carries Salesforce's login hosts, for clients that have them written into their code and reach the
org by a proxy. Nothing trusts the authority until a user names its file, and its key never leaves the folder.
"""

from __future__ import annotations

import ipaddress
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_HOSTS = (
    "localhost", "login.salesforce.com", "test.salesforce.com", "*.salesforce.com", "*.my.salesforce.com",
    "*.sandbox.my.salesforce.com",
)  # fmt: skip
_ADDRESSES = ("127.0.0.1", "::1")
_VALID = timedelta(days=730)
_RENEWED_BEFORE = timedelta(days=30)


def certificate(folder: Path) -> tuple[Path, Path, Path]:
    """The authority's certificate, the server's certificate and the server's key; made when missing or nearly over."""
    authority, server, key = folder / "ca.pem", folder / "server.pem", folder / "server.key"
    if not _good(authority, server, key):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _make(authority, server, key)
    return authority, server, key


def _good(authority: Path, server: Path, key: Path) -> bool:
    try:
        made = x509.load_pem_x509_certificate(server.read_bytes())
    except (OSError, ValueError):
        return False
    return authority.exists() and key.exists() and made.not_valid_after_utc - datetime.now(UTC) > _RENEWED_BEFORE


def _make(authority: Path, server: Path, key: Path) -> None:
    """The authority's own key signs this one certificate and is then forgotten: it can't be stolen later."""
    now = datetime.now(UTC)
    signing = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "dinmo-dbt emulator, this folder only")])
    usage = dict.fromkeys(
        ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
         "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"), False,
    )  # fmt: skip
    identifier = x509.SubjectKeyIdentifier.from_public_key(signing.public_key())
    root = (
        _builder(name, name, signing.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.KeyUsage(**{**usage, "key_cert_sign": True, "crl_sign": True}), critical=True)
        .add_extension(identifier, critical=False)
        .sign(signing, hashes.SHA256())
    )
    own = ec.generate_private_key(ec.SECP256R1())
    addresses = [x509.IPAddress(ipaddress.ip_address(a)) for a in _ADDRESSES]
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    leaf = (
        _builder(subject, name, own.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**{**usage, "digital_signature": True}), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([*map(x509.DNSName, _HOSTS), *addresses]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False
        )
        .sign(signing, hashes.SHA256())
    )  # fmt: skip
    private = own.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for path, data in (
        (authority, root.public_bytes(serialization.Encoding.PEM)), (key, private),
        (server, leaf.public_bytes(serialization.Encoding.PEM)),
    ):  # fmt: skip
        partial = path.with_suffix(".tmp")
        partial.unlink(missing_ok=True)
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
        partial.replace(path)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime
) -> x509.CertificateBuilder:
    # An hour back: the clocks of a container and its host may disagree.
    return (
        x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1)).not_valid_after(now + _VALID)
    )  # fmt: skip
