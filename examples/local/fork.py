"""Forks a live database, tries something out there, and drops the fork: `python3 fork.py PATH DATABASE`.

PATH is one of those that `tine serve --ipc` serves, DATABASE has the module beside this file.
"""

import json
import sys

from generated import tine
from tine_ipc import ServiceError


def encode(value):
    return json.dumps(value).encode()


def balance(client, fork, account):
    get = tine.TineGet(fork, "account", key=encode([account]), json=True, committed=False)
    rows = client.get(get).rows
    return json.loads(rows[0])["balance"] if rows else "none"


def transfer(client, fork, *arguments):
    call = tine.TineCallReducer(fork, "transfer", input=encode(arguments), json=True)
    return client.call_reducer(call).lsn


def main(path, database):
    with tine.TineClient(path) as client:
        main = client.open_fork(tine.TineOpenFork(database))
        fork = client.fork(tine.TineFork(main.fork, durable=False))
        print("the fork begins at the database's LSN:", fork.lsn >= main.lsn)

        # What the fork does is a commit of the fork alone.
        bob = encode({"id": 2, "owner": "Bob", "balance": 0})
        client.insert(tine.TineInsert(fork.fork, "account", [bob], json=True))
        paid = transfer(client, fork.fork, 1, 2, 30)
        print("commits of the fork:", paid - fork.lsn)

        # A checkpoint takes back what turns out badly; the way back is a commit too.
        checkpoint = client.begin_checkpoint(tine.TineBeginCheckpoint(fork.fork)).checkpoint
        transfer(client, fork.fork, 1, 2, 70)
        try:
            transfer(client, fork.fork, 1, 2, 1)
        except ServiceError as error:
            print("refused:", "not enough money" in str(error))
        back = client.revert_checkpoint(tine.TineRevertCheckpoint(fork.fork, checkpoint)).lsn
        print("LSNs go on:", back > paid)

        print("on the fork:", balance(client, fork.fork, 1), balance(client, fork.fork, 2))
        print("in the database:", balance(client, main.fork, 1), balance(client, main.fork, 2))
        client.drop_fork(tine.TineDropFork(fork.fork))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
