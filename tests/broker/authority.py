"""A throw-away certificate authority."""

import datetime
import ipaddress
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edgeops.broker import BrokerPlan
from edgeops.broker.reach import claim_port

DAY = datetime.timedelta(days=1)


def _name(*texts: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text) for text in texts])


@dataclass
class Authority:
    """A CA in a folder: `issue` writes certificate and key and returns their paths."""

    folder: Path
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    serials: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        builder = self._builder("test CA", self.key, 1, 30).add_extension(x509.BasicConstraints(True, None), True)
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        self.cert = builder.add_extension(usage, True).sign(self.key, hashes.SHA256())
        self.ca_path = self.folder / "ca.pem"
        self.ca_path.write_bytes(self.cert.public_bytes(serialization.Encoding.PEM))
        self.crl_path = self.folder / "crl.pem"
        self.revoke()

    def _builder(self, name: str, key: ec.EllipticCurvePrivateKey, age: int, days: int) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateBuilder().subject_name(_name(*name.split(","))).issuer_name(_name("test CA"))
        builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
        return builder.not_valid_before(now - age * DAY).not_valid_after(now + days * DAY)

    def issue(self, name: str, *, server: bool = False, expired: bool = False) -> tuple[Path, Path]:
        """Certificate and key for `name`; issued once."""
        cert, key_path = self.folder / f"{name}{expired:d}.pem", self.folder / f"{name}{expired:d}.key"
        if cert.exists():
            return cert, key_path
        key = ec.generate_private_key(ec.SECP256R1())
        use = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = self._builder(name, key, 3, -1 if expired else 9).add_extension(x509.ExtendedKeyUsage([use]), False)
        if server:
            names = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), False)
        made = builder.sign(self.key, hashes.SHA256())
        self.serials[name] = made.serial_number
        cert.write_bytes(made.public_bytes(serialization.Encoding.PEM))
        form = serialization.PrivateFormat.PKCS8
        key_path.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
        return cert, key_path

    def revoke(self, *names: str) -> None:
        """Write a revocation list that holds `names`."""
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateRevocationListBuilder().issuer_name(_name("test CA"))
        builder = builder.last_update(now - DAY + datetime.timedelta(hours=len(names))).next_update(now + DAY)
        for name in names:
            entry = x509.RevokedCertificateBuilder().serial_number(self.serials[name]).revocation_date(now).build()
            builder = builder.add_revoked_certificate(entry)
        self.crl_path.write_bytes(builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def plan(self, folder: Path, port: int = 0, *, crl: bool = False, browsers: Path | None = None) -> BrokerPlan:
        """A broker on loopback with this CA; `browsers` is the password file of its second listener."""
        cert, key = self.issue("server", server=True)
        wss = claim_port("127.0.0.1", 0) if browsers else None
        return BrokerPlan(folder, "127.0.0.1", port, self.ca_path, cert, key, self.crl_path if crl else None, wss, browsers)
