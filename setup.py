"""Builds the Cython kernels; everything else about the package is in pyproject.toml.

Without a C compiler or OpenMP the package is built all the same and uses its Numba kernels.
MMEMBED_CHECKED_BUILD=1 builds the kernels with every bounds check on.
"""

import os
import shlex
import sys
import tempfile
from pathlib import Path

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, LinkError

CHECKED = os.environ.get("MMEMBED_CHECKED_BUILD") == "1"

DIRECTIVES = {
    "language_level": 3,
    "boundscheck": CHECKED,
    "wraparound": False,
    "initializedcheck": CHECKED,
    "overflowcheck": False,  # Philox wraps around on purpose
    "cdivision": not CHECKED,
    "embedsignature": True,
    "freethreading_compatible": True,
}

# A compiler that fuses a * b + c would make results depend on the processor.
COMPILE_ARGS = ["-O3", "-ffp-contract=off", "-fno-math-errno", "-fopenmp"]
LINK_ARGS = ["-fopenmp"]


class BuildKernels(build_ext):
    """Build the kernels if this machine can; otherwise say what is missing and go on."""

    def build_extensions(self):
        """Leave the extension out where it cannot be built."""
        missing = self._missing()
        if missing:
            self._report(f"{missing} is missing")
            self.extensions = []
        super().build_extensions()

    def build_extension(self, ext):
        """Build one extension; go on without it if it does not compile."""
        try:
            super().build_extension(ext)
        except (CompileError, LinkError) as error:
            self._report(f"they did not compile ({error})")

    def _missing(self):
        """Return the name of what this machine lacks, or None."""
        program = "#include <omp.h>\nint main(void) { return omp_get_max_threads() < 1; }\n"
        for missing, text, args in (
            (
                "a working C compiler (Debian: apt install gcc libc6-dev)",
                "int main(void) { return 0; }\n",
                [],
            ),
            ("OpenMP (Debian: it comes with gcc)", program, ["-fopenmp"]),
        ):
            with tempfile.TemporaryDirectory() as folder:
                source = Path(folder, "probe.c")
                source.write_text(text)
                try:
                    objects = self.compiler.compile([str(source)], folder, extra_postargs=args)
                    flags = [*args, *shlex.split(os.environ.get("LDFLAGS", ""))]
                    self.compiler.link_executable(
                        objects, str(Path(folder, "probe")), extra_postargs=flags
                    )
                except (CompileError, LinkError, OSError):
                    return missing
        return None

    @staticmethod
    def _report(why):
        print(
            f"mmembed: the compiled kernels are left out: {why}. The Numba kernels will be used. "
            "To have the compiled ones, mend this and install again.",
            file=sys.stderr,
        )


EXTENSIONS = [
    Extension(
        "mmembed._kernels",
        ["mmembed/_kernels.pyx"],
        include_dirs=[numpy.get_include()],
        define_macros=[("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION")],
        depends=[
            "mmembed/_kernels.pyx",
            *(str(path) for path in sorted(Path("mmembed/kernels/cython").iterdir())),
        ],
        extra_compile_args=COMPILE_ARGS,
        extra_link_args=LINK_ARGS,
    ),
    Extension(
        "mmembed.storage._pages",
        ["mmembed/storage/_pages.pyx"],
        depends=["mmembed/storage/_pages.pyx", "mmembed/storage/reader.h"],
        extra_link_args=["-pthread"],
    ),
    Extension(
        "mmembed.storage._saving",
        ["mmembed/storage/_saving.pyx"],
        depends=["mmembed/storage/_saving.pyx", "mmembed/storage/crc_fold.h"],
        extra_compile_args=["-O3"],
    ),
]

setup(
    ext_modules=cythonize(EXTENSIONS, compiler_directives=DIRECTIVES, force=True, quiet=True),
    cmdclass={"build_ext": BuildKernels},
)
