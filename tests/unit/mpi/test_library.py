"""The library of mpi4py: its name and version in MPI's own words."""

import pytest

from nsactors.mpi.library import Library, named_in


@pytest.mark.parametrize(
    ("text", "name", "version"),
    [
        ("MPICH Version:\t4.0.2\nMPICH Release date:\tThu Apr  7 12:34:45 CDT 2022\n", "MPICH", "4.0.2"),
        ("MPICH Version:      5.0.2\nMPICH Release date: unreleased", "MPICH", "5.0.2"),
        ("Open MPI v4.1.4, package: Debian OpenMPI, ident: 4.1.4\0", "Open MPI", "4.1.4"),
        ("Intel(R) MPI Library 2021.11 for Linux* OS\n", "Intel(R) MPI Library", "2021.11"),
        ("MVAPICH2 Version      :\t2.3.7\n", "MVAPICH2", "2.3.7"),
        ("MPI VERSION    : CRAY MPICH version 8.1.29.18 (ANL base 3.4a2)\n", "CRAY MPICH", "8.1.29.18"),
        ("a library of nobody", "a library of nobody", ""),
        ("", "", ""),
    ],
)
def test_a_library_is_named_by_what_it_says_of_itself(text: str, name: str, version: str) -> None:
    assert named_in(text) == (name, version)


def test_a_library_says_whether_it_comes_with_a_wheel_or_with_the_system() -> None:
    assert str(Library("MPICH", "5.0.2", "/env/lib/libmpi.so.12", "mpich")) == (
        "MPICH 5.0.2 of the wheel mpich, /env/lib/libmpi.so.12"
    )
    assert str(Library("Open MPI", "4.1.4", "/usr/lib/libmpi.so.40")) == (
        "Open MPI 4.1.4 of this system, /usr/lib/libmpi.so.40"
    )
    assert str(Library("a library of nobody", "")) == "a library of nobody of this system"
