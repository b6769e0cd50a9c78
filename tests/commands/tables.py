"""MLflow's tables, made once: its migrations take seconds for every new store."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path


def make_once(template: Path) -> None:
    """Have this process copy the tables of new SQLite stores, once some process has made them.

    Where FRESH_TABLES is in the environment, they are made anew.
    """
    import sqlalchemy
    from mlflow.store.db import utils

    make = utils._initialize_tables

    def initialize_tables(engine):
        if engine.dialect.name != "sqlite" or sqlalchemy.inspect(engine).get_table_names():
            make(engine)
        elif template.exists() and "FRESH_TABLES" not in os.environ:
            copy(template, engine.url.database)
        else:
            make(engine)
            own = template.with_name(f"{template.name}.{os.getpid()}")
            copy(engine.url.database, own)
            own.replace(template)

    utils._initialize_tables = initialize_tables


def copy(source, target) -> None:
    with closing(sqlite3.connect(source)) as here, closing(sqlite3.connect(target)) as there:
        here.backup(there)
