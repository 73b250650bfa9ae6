"""model-signing, cryptography and OpenSSL as judges of signatures.

A task is a line of JSON with `do`, and is answered by one line: `{"ok": true}`, or `{"ok": false, "message": ...}` where the
tool refuses. Keys and certificates are made here too, so that none of them comes from what is tested.
"""

import datetime
import hashlib
import json
import pathlib
import sys

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from model_signing import hashing, signing, verifying

CURVES = {"p256": ec.SECP256R1(), "p384": ec.SECP384R1(), "p521": ec.SECP521R1()}
FORMS = {
    "sec1": serialization.PrivateFormat.TraditionalOpenSSL,
    "pkcs8": serialization.PrivateFormat.PKCS8,
    "encrypted": serialization.PrivateFormat.PKCS8,
}


def new_key(kind):
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    if kind == "rsa":
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return ec.generate_private_key(CURVES[kind])


def write_key(path, key, form="pkcs8", password=None):
    encryption = serialization.NoEncryption()
    if form == "encrypted":
        encryption = serialization.BestAvailableEncryption(password.encode())
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, FORMS[form], encryption))


def write_public(path, key):
    pem = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    path.write_bytes(pem)


def make_key(task):
    key = new_key(task["kind"])
    write_key(pathlib.Path(task["private"]), key, task["form"], task.get("password"))
    write_public(pathlib.Path(task["public"]), key)


def check_key(task):
    """Whether cryptography reads a private key, and its public half is the one that is given."""
    password = task.get("password")
    key = serialization.load_pem_private_key(
        pathlib.Path(task["private"]).read_bytes(), password and password.encode()
    )
    form = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    given = pathlib.Path(task["public"]).read_bytes()
    if key.public_key().public_bytes(*form) != given:
        raise ValueError("the public key is of another private key, or written otherwise")
    if hashlib.sha256(given).hexdigest() != task["hint"]:
        raise ValueError("the hint is not that of the public key")


class Certificates:
    """A folder of certificates: good ones, and each with one thing wrong."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.now = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)

    def make(self, name, key, issuer, issuer_key, *, begin=-10, end=100, extensions=(), digest=hashes.SHA256()):
        """A certificate for `key`; days are counted from now."""
        day = datetime.timedelta(days=1)
        subject = x509.Name([
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Weighbridge tests"),
            x509.NameAttribute(NameOID.COMMON_NAME, name),
        ])
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer.subject if issuer else subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self.now + begin * day)
            .not_valid_after(self.now + end * day)
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        if isinstance(issuer_key, ed25519.Ed25519PrivateKey):
            digest = None
        certificate = builder.sign(issuer_key, digest)
        pem = certificate.public_bytes(serialization.Encoding.PEM)
        (self.folder / f"{name}.pem").write_bytes(pem)
        return certificate


def authority(length=None, sign=True, ca=True):
    usage = dict.fromkeys(
        ["content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only", "decipher_only"],
        False,
    )
    constraints = x509.BasicConstraints(ca=ca, path_length=length)
    return [
        (constraints, True),
        (x509.KeyUsage(digital_signature=False, key_cert_sign=sign, crl_sign=True, **usage), True),
    ]


def signer(digital=True, extended=None):
    usage = dict.fromkeys(
        ["key_encipherment", "data_encipherment", "key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"],
        False,
    )
    found = [(x509.KeyUsage(digital_signature=digital, content_commitment=not digital, **usage), True)]
    if extended:
        found.append((x509.ExtendedKeyUsage([extended]), False))
    return found


def make_certificates(task):
    """For each kind of root: root, two authorities below it, and signers; the keys of the signers are `NAME.key`."""
    made = Certificates(task["folder"])
    for kind in ["p256", "p384", "p521", "ed25519", "rsa"]:
        root_key, middle_key, low_key = new_key(kind), new_key(kind), new_key("p384")
        root = made.make(f"{kind}-root", root_key, None, root_key, begin=-400, end=4000, extensions=authority())
        middle = made.make(
            f"{kind}-middle", middle_key, root, root_key, begin=-300, end=3000, extensions=authority(1), digest=hashes.SHA384()
        )
        low = made.make(
            f"{kind}-low", low_key, middle, middle_key, begin=-200, end=2000, extensions=authority(0), digest=hashes.SHA512()
        )
        key = new_key("p256")
        write_key(made.folder / f"{kind}-signer.key", key)
        made.make(f"{kind}-signer", key, low, low_key, extensions=signer())
    root_key, middle_key = new_key("p256"), new_key("p256")
    root = made.make("root", root_key, None, root_key, begin=-400, end=4000, extensions=authority())
    middle = made.make("middle", middle_key, root, root_key, begin=-300, end=3000, extensions=authority(0))

    def leaf(name, issuer=middle, issuer_key=middle_key, kind="p256", **more):
        key = new_key(kind)
        write_key(made.folder / f"{name}.key", key)
        more.setdefault("extensions", signer())
        made.make(name, key, issuer, issuer_key, **more)

    leaf("good")
    leaf("good384", kind="p384")
    leaf("code", extensions=signer(extended=ExtendedKeyUsageOID.CODE_SIGNING))
    leaf("expired", begin=-100, end=-50)
    leaf("future", begin=10, end=50)
    leaf("before-its-issuer", begin=-350, end=50)
    leaf("no-usage", extensions=[])
    leaf("wrong-usage", extensions=signer(digital=False))
    leaf("server", extensions=signer(extended=ExtendedKeyUsageOID.SERVER_AUTH))
    critical = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
    leaf("critical", extensions=[*signer(), (critical, True)])
    # Its issuer's name with another key.
    leaf("forged", issuer_key=new_key("p256"))
    for name, extensions in [
        ("no-authority", authority(ca=False)),
        ("no-cert-sign", authority(sign=False)),
        ("no-constraints", []),
    ]:
        key = new_key("p256")
        issuer = made.make(f"{name}-issuer", key, root, root_key, begin=-300, end=3000, extensions=extensions)
        leaf(name, issuer, key)
    # The authority `middle` allows none below it.
    low_key = new_key("p256")
    low = made.make("too-long-issuer", low_key, middle, middle_key, begin=-200, end=2000, extensions=authority())
    leaf("too-long", low, low_key)
    # A root of the same name that nobody trusts.
    stranger_key = new_key("p256")
    stranger = made.make("stranger", stranger_key, None, stranger_key, begin=-400, end=4000, extensions=authority())
    leaf("of-stranger", stranger, stranger_key)
    own_key = new_key("p256")
    write_key(made.folder / "own.key", own_key)
    made.make("own", own_key, None, own_key, extensions=signer())


def hashing_of(task):
    ways = {"hashing_algorithm": task.get("hash", "sha256"), "allow_symlinks": task.get("allow_symlinks", False)}
    if "shard_size" in task:
        config = hashing.Config().use_shard_serialization(shard_size=task["shard_size"], **ways)
    else:
        config = hashing.Config().use_file_serialization(**ways)
    config.set_allow_symlinks(ways["allow_symlinks"])
    config.set_ignored_paths(paths=[pathlib.Path(p) for p in task.get("ignore", [])])
    return config


def sign(task):
    config = signing.Config().set_hashing_config(hashing_of(task))
    if "certificate" in task:
        config.use_certificate_signer(
            private_key=pathlib.Path(task["key"]),
            signing_certificate=pathlib.Path(task["certificate"]),
            certificate_chain=[pathlib.Path(p) for p in task["chain"]],
        )
    else:
        config.use_elliptic_key_signer(private_key=pathlib.Path(task["key"]))
    config.sign(pathlib.Path(task["model"]), pathlib.Path(task["signature"]))


def verify(task):
    config = verifying.Config()
    if task.get("explicit"):
        config.set_hashing_config(hashing_of(task))
    if "roots" in task:
        config.use_certificate_verifier(certificate_chain=[pathlib.Path(p) for p in task["roots"]])
    else:
        config.use_elliptic_key_verifier(public_key=pathlib.Path(task["public"]))
    config.verify(pathlib.Path(task["model"]), pathlib.Path(task["signature"]))


TASKS = {
    "key": make_key,
    "check-key": check_key,
    "certificates": make_certificates,
    "sign": sign,
    "verify": verify,
}


def main():
    for line in sys.stdin:
        task = json.loads(line)
        try:
            TASKS[task["do"]](task)
            answer = {"ok": True}
        except Exception as error:  # What a tool refuses is an answer, whatever it is raised as.
            answer = {"ok": False, "message": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
