"""Where slurmdbd's database lies on its host, and the programs that keep it."""

from __future__ import annotations

LIBRARY = "/usr/local/lib/slurmstack/accounting"
#: Its name in MariaDB, and the folder of its tables (datadir of Debian's and Ubuntu's packages).
DATABASE = "slurm_acct_db"
TABLES = f"/var/lib/mysql/{DATABASE}"
#: Dumps it; with a word, that is a part of the dump's name. It lies there once accounting has been
#: deployed.
DUMP = f"{LIBRARY}/dump"
