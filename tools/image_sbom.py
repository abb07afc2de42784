"""The list of what is in the image, as an SPDX 2.3 document: every package with version and licence, every file with its hashes.

Times and names come from the caller, so the same image has the same list."""
import hashlib
import json
import platform
import re
import urllib.parse

# Debian's names of licences (machine-readable copyright files) that SPDX knows by another, or by the same.  The GNU ones follow a rule.
SPDX_NAMES = {name.lower(): spdx for name, spdx in {
    "Apache-2.0": "Apache-2.0", "BSD-2-clause": "BSD-2-Clause", "BSD-3-clause": "BSD-3-Clause", "BSD-4-clause": "BSD-4-Clause",
    "BSD-4-Clause-UC": "BSD-4-Clause-UC", "CC0-1.0": "CC0-1.0", "curl": "curl", "Expat": "MIT", "FSFULLR": "FSFULLR", "ISC": "ISC",
    "MIT": "MIT", "MPL-1.1": "MPL-1.1", "MPL-2.0": "MPL-2.0", "OLDAP-2.8": "OLDAP-2.8", "PostgreSQL": "PostgreSQL", "Tcl": "TCL",
    "X11": "X11", "Zlib": "Zlib",
}.items()}
NOT_SAID = "NOASSERTION"


class Licences:
    """SPDX expressions for Debian's licence names; remembers those that SPDX has no name for."""

    def __init__(self):
        self.others = {}

    def term(self, name):
        gnu = re.fullmatch(r"(GPL|LGPL|AGPL|GFDL)-(\d)(?:\.(\d))?(\+?)", name)
        if gnu:
            family, major, minor, later = gnu.groups()
            return f"{family}-{major}.{minor or 0}-{'or-later' if later else 'only'}"
        if name.lower() in SPDX_NAMES:
            return SPDX_NAMES[name.lower()]
        ref = "LicenseRef-Debian-" + re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-")
        self.others[ref] = name
        return ref

    def expression(self, text):
        """'A and B or C', where 'and' binds first; with commas it is another language, and stands as one name."""
        if "," in text:
            return self.term(text)
        parts = [" AND ".join(self.term(t) for t in re.split(r"\s+and\s+", side)) for side in re.split(r"\s+or\s+", text)]
        return parts[0] if len(parts) == 1 else " OR ".join(f"({p})" if " AND " in p else p for p in parts)

    def of_copyright(self, text):
        """All licences that a machine-readable copyright file names; of another one nothing is said."""
        if not text.startswith("Format:"):
            return NOT_SAID
        found = set()
        for line in re.findall(r"^License:[ \t]*(\S.*)$", text, re.MULTILINE):
            expression = self.expression(line.strip())
            found.update([f"({expression})"] if " OR " in expression else expression.split(" AND "))
        return " AND ".join(sorted(found)) or NOT_SAID


def document(version, arch, created, packages, files, copyright_of):
    """`packages` and `files` are of image_root.fill; copyright_of(package) gives the text of its copyright file."""
    licences, elements, relations = Licences(), [], []

    def relate(one, kind, other):
        relations.append({"spdxElementId": one, "relationshipType": kind, "relatedSpdxElement": other})

    def package(name, at_version, mine, licence, **more):
        ident = "SPDXRef-Package-" + re.sub(r"[^A-Za-z0-9.]", "-", name)
        code = hashlib.sha1("".join(sorted(f["sha1"] for f in mine)).encode(), usedforsecurity=False).hexdigest()
        elements.append({"SPDXID": ident, "name": name, "versionInfo": at_version, "downloadLocation": NOT_SAID, "filesAnalyzed": True,
                         "packageVerificationCode": {"packageVerificationCodeValue": code}, "licenseConcluded": NOT_SAID,
                         "licenseDeclared": licence, "copyrightText": NOT_SAID, **more})
        relate("SPDXRef-Image", "CONTAINS", ident)
        for f in mine:
            relate(ident, "CONTAINS", f["id"])

    files = [dict(f, id=f"SPDXRef-File-{n}") for n, f in enumerate(files, 1)]
    elements.append({"SPDXID": "SPDXRef-Image", "name": "postern/postern", "versionInfo": version, "downloadLocation": NOT_SAID,
                     "filesAnalyzed": False, "licenseConcluded": NOT_SAID, "licenseDeclared": NOT_SAID, "copyrightText": NOT_SAID,
                     "primaryPackagePurpose": "CONTAINER"})
    relate("SPDXRef-DOCUMENT", "DESCRIBES", "SPDXRef-Image")
    package("postern", version, [f for f in files if f["package"] is None], "Apache-2.0", primaryPackagePurpose="APPLICATION")
    release = platform.freedesktop_os_release()
    distro = f"{release['ID']}-{release['VERSION_ID']}"
    for p in packages:
        name, at = p["Package"], urllib.parse.quote(p["Version"], safe=":~.-")
        purl = f"pkg:deb/debian/{name}@{at}?arch={p['Architecture']}&distro={distro}"
        more = {"homepage": p["Homepage"]} if p["Homepage"] else {}
        package(name, p["Version"], [f for f in files if f["package"] == name], licences.of_copyright(copyright_of(name)),
                supplier=f"Organization: {p['Maintainer']}",
                sourceInfo=f"built from Debian source {p['source:Package']} {p['source:Version']}",
                externalRefs=[{"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": purl}], **more)
    unique = hashlib.sha256("".join(f["path"] + f["sha256"] for f in files).encode()).hexdigest()
    return json.dumps({
        "spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT", "name": f"postern-{version}-{arch}",
        "documentNamespace": f"https://spdx.org/spdxdocs/postern-{version}-{arch}-{unique}",
        "creationInfo": {"created": created, "creators": [f"Tool: postern-image-{version}"]},
        "packages": elements,
        "files": [{"SPDXID": f["id"], "fileName": "." + f["path"], "licenseConcluded": NOT_SAID, "copyrightText": NOT_SAID,
                   "checksums": [{"algorithm": "SHA1", "checksumValue": f["sha1"]},
                                 {"algorithm": "SHA256", "checksumValue": f["sha256"]}]} for f in files],
        "relationships": relations,
        "hasExtractedLicensingInfos": [
            {"licenseId": ref, "name": name, "extractedText": f"'{name}' in the copyright files below /usr/share/doc of the image"}
            for ref, name in sorted(licences.others.items())],
    }, indent=1) + "\n"
