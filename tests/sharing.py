"""How processes share the tests (`make test`): file by file, so that a module's fixtures are made once."""

from xdist.scheduler import LoadScopeScheduling

from tests.order import CLUSTER


class FileScheduling(LoadScopeScheduling):
    """A file goes to the process that is free; those of the cluster go to one process, which starts it once."""

    def _split_scope(self, nodeid: str) -> str:
        return CLUSTER if nodeid.startswith(CLUSTER) else nodeid.partition("::")[0]
