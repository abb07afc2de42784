"""Fixtures of the image tests.  They need root (owners of files, runc); tools/deps image installs what they use."""
import os
import pathlib
import shutil
import subprocess
import venv

import pytest

from container import ROOT, Image
from harness import CA, new_home

FOLDER = ROOT / "build/image"
SPDX_TOOLS = "spdx-tools==0.8.3"


@pytest.fixture(scope="session", autouse=True)
def as_root():
    if os.geteuid() != 0:
        pytest.skip("owners of files and runc need root")


@pytest.fixture(scope="session")
def home():
    home = new_home()
    yield home
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def archive():
    """The image as `tools/image --local` makes it."""
    subprocess.check_call([ROOT / "tools/image", "--local", "--output", FOLDER])
    archive, = FOLDER.glob("archive/*.oci.tar")
    return archive


@pytest.fixture(scope="session")
def image(archive, home):
    image = Image(archive, home)
    yield image
    image.stop()


@pytest.fixture(scope="session")
def ca(home):
    return CA(home / "ca")


@pytest.fixture(scope="session")
def pyspdxtools():
    """The validator of the SPDX project, from PyPI, in a folder of its own."""
    where = ROOT / "build/spdx-tools"
    program = where / "bin/pyspdxtools"
    if not program.exists():
        shutil.rmtree(where, ignore_errors=True)
        try:
            venv.create(where, with_pip=True)
            subprocess.check_call([where / "bin/pip", "install", "--quiet", SPDX_TOOLS])
        except (subprocess.CalledProcessError, OSError) as e:
            pytest.skip(f"{SPDX_TOOLS} cannot be installed: {e}")
    return pathlib.Path(program)
