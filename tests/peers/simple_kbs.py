"""simple-kbs, the broker of the KBC ``online_sev``, on loopback, for one test alone."""

from __future__ import annotations

import json
import os
import sqlite3
import uuid
from base64 import b64encode
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from .daemon import daemon
from .folder import folder_peer, peer_environment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# The tables of its SQLite database at the commit that docs/peers.md names.
TABLES: Final = """
create table conn_bundle (
    id varchar(512) primary key, sev_version int, policy int, fw_api_major int, fw_api_minor int,
    fw_build_id int, launch_description varchar(512), fw_digest varchar(512), symkey varchar(512),
    create_date datetime, delete_date datetime);
create table keysets (
    id integer primary key autoincrement, keysetid varchar(50) unique, kskeys longtext, polid int);
create table policy (
    id integer primary key autoincrement, allowed_digests longtext, allowed_policies longtext,
    min_fw_api_major int, min_fw_api_minor int, allowed_build_ids longtext,
    create_date datetime, delete_date datetime, valid tinyint);
create table secrets (
    id integer primary key autoincrement, secret_id varchar(1024) unique, secret varchar(1024),
    polid int);
create table report_keypair (
    id integer primary key autoincrement, key_id varchar(1024) unique, keypair varchar(1024),
    polid int);
create table resources (
    id integer primary key autoincrement, resource_id varchar(1024) unique,
    resource_type varchar(1024), resource_path varchar(1024), polid int);
"""

CONNECTION: Final = """
insert into conn_bundle
    (id, policy, fw_api_major, fw_api_minor, fw_build_id, launch_description, fw_digest, symkey)
values (?, 0, 0, 0, 14, 'test', 'placeholder', ?)
"""

NO_POLICY: Final = {
    "allowed_digests": [],
    "allowed_policies": [],
    "min_fw_api_major": 0,
    "min_fw_api_minor": 0,
    "allowed_build_ids": [],
}


@dataclass(frozen=True)
class RunningSimpleKbs:
    """A real simple-kbs and the connection that a SEV guest would have been launched with."""

    address: str
    connection: Path


@contextmanager
def simple_kbs(folder: Path, keys: Path) -> Iterator[RunningSimpleKbs]:
    """Run it, gRPC in plain text, with the keys of a keys file."""
    folder.mkdir(exist_ok=True)
    connection = {"client_id": str(uuid.uuid4()), "key": b64encode(os.urandom(32)).decode()}
    database = folder / "kbs.db"
    _write_database(database, connection, json.loads(keys.read_text()))
    (folder / "connection.json").write_text(json.dumps(connection))
    (folder / "default_policy.json").write_text(json.dumps(NO_POLICY))
    unused = dict.fromkeys(("KBS_DB_HOST", "KBS_DB_USER", "KBS_DB_PW"), "-")
    env = peer_environment(
        KBS_DB_TYPE="sqlite", KBS_DB=str(database), KBS_DB_MAX_CONNS="4", **unused
    )
    command: list[str | Path] = [folder_peer("simple-kbs"), "--grpc_sock", "127.0.0.1:0"]
    # it reads default_policy.json where it stands
    with daemon(command, folder / "simple-kbs.log", env, folder) as running:
        yield RunningSimpleKbs(running.address(), folder / "connection.json")


def _write_database(path: Path, connection: dict[str, str], keys: dict[str, str]) -> None:
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as database, database:
        database.executescript(TABLES)
        database.execute(CONNECTION, (connection["client_id"], connection["key"]))
        database.executemany("insert into secrets (secret_id, secret) values (?, ?)", keys.items())
