"""The cluster of one process: at once there, and without Ray."""

import subprocess
import sys
import time

from nsactors import Cluster


def test_a_local_cluster_of_four_is_there_within_a_tenth_of_a_second() -> None:
    def start_s() -> float:
        began = time.perf_counter()
        cluster = Cluster(n=4, backend="local")
        client = cluster.start_and_connect_sync()
        took = time.perf_counter() - began
        assert client.ids == [0, 1, 2, 3]
        cluster.stop_cluster_sync()
        return took

    assert min(start_s() for _ in range(3)) < 0.1


def test_a_local_cluster_works_where_ray_cannot_be_imported() -> None:
    program = (
        "import sys; sys.modules['ray'] = None\n"
        "from nsactors import Cluster\n"
        "with Cluster(n=2, backend='local') as rc:\n"
        "    print(rc[:].map_sync(lambda x: x**2, range(4)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[0, 1, 4, 9]\n", "")
