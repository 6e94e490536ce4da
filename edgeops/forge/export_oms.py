"""A release as an OpenSSF model-signing (OMS v1) bundle: `model_signing verify key` of any user of that standard accepts it.

An in-toto statement with one digest for each file, in a DSSE envelope, in a Sigstore bundle with a public key and no log entry.
The standard's key method knows ECDSA on NIST curves only, so a release key (Ed25519) cannot sign it: a P-256 key of its own does.
The signed release itself is among the files, so whoever knows the release key loses nothing.
"""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from edgeops.wire.envelope import pae
from edgeops.wire.errors import Misuse
from edgeops.wire.release import Release

from .export_files import copy, files_of

MEDIA = "application/vnd.dev.sigstore.bundle.v0.3+json"
STATEMENT, PREDICATE = "https://in-toto.io/Statement/v1", "https://model_signing/signature/v1.0"
PAYLOAD_TYPE = "application/vnd.in-toto+json"


def export_oms(folder: Path, release: Release, out: Path, key: ec.EllipticCurvePrivateKey) -> dict[str, str]:
    """Copy the release into `out` and sign it there; paths of the model folder, its bundle and the public key.

    `out` is new or holds exports of other releases; raises Misuse("folder-in-use").
    """
    name = f"{release.model}-{release.version}"
    model, bundle, public = out / name, out / f"{name}.sig", out / f"{name}.pub"
    if model.exists() or bundle.exists():
        raise Misuse("folder-in-use", f"{out} holds {name} already; an export is never overwritten, give another folder")
    files = files_of(folder, release)
    for inside, path in files.items():
        copy(path, model / inside)
    digests = {inside: hashlib.sha256(path.read_bytes()).hexdigest() for inside, path in files.items()}
    pem = public_pem(key)
    bundle.write_text(json.dumps(sign_statement(statement(name, digests), key, pem)), "utf-8")
    public.write_bytes(pem)
    return {"model": str(model), "signature": str(bundle), "public_key": str(public)}


def statement(name: str, digests: dict[str, str]) -> dict[str, Any]:
    """The in-toto statement; the subject's digest is that of all digests in the order of names."""
    whole = hashlib.sha256(b"".join(bytes.fromhex(digest) for digest in digests.values())).hexdigest()
    resources = [{"name": inside, "algorithm": "sha256", "digest": digest} for inside, digest in digests.items()]
    return {
        "_type": STATEMENT, "subject": [{"name": name, "digest": {"sha256": whole}}], "predicateType": PREDICATE,
        "predicate": {
            "serialization": {"method": "files", "hash_type": "sha256", "allow_symlinks": False}, "resources": resources,
        },
    }  # fmt: skip


def sign_statement(body: dict[str, Any], key: ec.EllipticCurvePrivateKey, pem: bytes) -> dict[str, Any]:
    """The Sigstore bundle; the public key is named by the SHA-256 of its PEM."""
    payload = json.dumps(body).encode()
    signature = key.sign(pae(PAYLOAD_TYPE, payload), ec.ECDSA(HASHES[key.curve.name]))
    return {
        "mediaType": MEDIA,
        "verificationMaterial": {"publicKey": {"hint": hashlib.sha256(pem).hexdigest()}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(), "payloadType": PAYLOAD_TYPE,
            "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
        },
    }  # fmt: skip


HASHES: dict[str, hashes.HashAlgorithm] = {"secp256r1": hashes.SHA256(), "secp384r1": hashes.SHA384(), "secp521r1": hashes.SHA512()}


def load_key(pem: bytes, where: str, passphrase: str = "") -> ec.EllipticCurvePrivateKey:
    """The signing key; `where` names it in errors. Raises Misuse("bad-key") for what the standard does not know."""
    make = "make one with `openssl ecparam -name prime256v1 -genkey -noout -out oms.key`"
    try:
        key = load_pem_private_key(pem, passphrase.encode() or None)
    except (ValueError, TypeError) as error:
        raise Misuse("bad-key", f"{where} cannot be read as a private key ({error}); {make}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name not in HASHES:
        raise Misuse("bad-key", f"{where} is no ECDSA key on P-256, P-384 or P-521, and OMS knows no other; {make}")
    return key


def public_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The public half, as the verifier wants it."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
