"""The echo service in Python: `client PATH FIXTURES` and `fixtures FIXTURES`."""

import asyncio
import sys

import tine_ipc
from generated import echo

MESSAGES = {
    name: getattr(echo, name)
    for name in dir(echo)
    if name.startswith("Echo") and name != "EchoClient"
}


def expect(condition, message):
    if not condition:
        raise AssertionError(message)


def read_fixtures(file):
    with open(file, encoding="utf-8") as lines:
        for line in lines:
            if line.strip() and not line.startswith("#"):
                kind, name, data, expected = (line.rstrip("\n") + "  ").split(" ")[:4]
                yield kind, name, data, expected


def recode(name, message):
    codec = MESSAGES[name]._codec
    if name.endswith("Response"):
        return tine_ipc.encode_response(name, codec, tine_ipc.decode_response(name, codec, message))
    return tine_ipc.encode_request(name, codec, tine_ipc.decode_request(name, codec, message))


def check_fixtures(file):
    count = 0
    for kind, name, data, expected in read_fixtures(file):
        try:
            found = recode(name, bytes.fromhex(data)).hex()
        except tine_ipc.DecodeError as error:
            found = error.code
        wanted = data if kind == "exact" else expected
        expect(found == wanted, f"{kind} {name} {data}: found {found}")
        count += 1
    print(f"fixtures {count}")


def run_client(path, file):
    with echo.EchoClient(path) as client:
        calls = {
            "EchoScalars": client.scalars,
            "EchoOptionals": client.optionals,
            "EchoLists": client.lists,
            "EchoBytes": client.bytes,
            "EchoSame": client.same,
            "EchoNothing": client.nothing,
        }
        count = 0
        for kind, name, data, _ in read_fixtures(file):
            if kind != "exact" or name not in calls:
                continue
            codec = MESSAGES[name]._codec
            request = tine_ipc.decode_request(name, codec, bytes.fromhex(data))
            response = calls[name](request)
            writer = tine_ipc.Writer()
            codec.write(writer, response)
            fields = writer.bytes_written().hex()
            expect(data.endswith(fields), f"{name} {data}: another value came back")
            count += 1
        large = b"\x07" * (3 << 20)
        expect(client.bytes(echo.EchoBytes(large)).data == large, "large bytes came back different")
        refused(client)
        streams(client)
        asyncio.run(many(client))
    print(f"client {count}")


def refused(client):
    try:
        client.fail(echo.EchoFail("no, because ü"))
    except tine_ipc.ServiceError as error:
        expect(str(error) == "no, because ü", str(error))
    else:
        raise AssertionError("`fail` did not fail")


def streams(client):
    values = [item.value for item in client.count(echo.EchoCount(5, 1000), 16)]
    expect(values == list(range(5, 1005)), "other items came")
    with client.count(echo.EchoCount(0), 4) as endless:
        for value in range(10):
            expect(endless.next().value == value, "another item came")
    client.nothing(echo.EchoNothing())


async def many(client):
    requests = [echo.EchoSame(bytes([index])) for index in range(200)]
    responses = await asyncio.gather(*(client.same_async(request) for request in requests))
    expect([response.data for response in responses] == [request.data for request in requests], "mixed up")


if __name__ == "__main__":
    verb, *arguments = sys.argv[1:]
    {"client": run_client, "fixtures": check_fixtures}[verb](*arguments)
