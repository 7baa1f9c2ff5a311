"""What stands outside the containers in tests/compose/run: a plain AMQP client, a plain Redis client, and a model endpoint that holds
steps back until it is told to let them go.

    outside.py ports N                   N free ports of this host
    outside.py host SUBNET               the address of this host for containers, whose default bridge has that subnet
    outside.py model ADDRESS PORT        serves the endpoint until it is killed
    outside.py held N                    waits until the endpoint holds N steps
    outside.py release                   lets them go, now and from now on
    outside.py publish PREFIX N          publishes the objectives PREFIX-1 to PREFIX-N, each confirmed by the broker
    outside.py publish-offline RUN       publishes one that the offline model can do
    outside.py busiest PREFIX N          who holds the most steps of those runs: how many, and the worker's name
    outside.py results PREFIX N          waits for their results and checks each of them
    outside.py result-offline RUN        waits for the result of the offline model and checks it
    outside.py claimed-again PREFIX N    how many steps a second worker has taken over
    outside.py store-version             what the store is
    outside.py console RUN               asks the console for everything once

AMQP_PORT, REDIS_PORT, CONSOLE_PORT, MODEL_URL, RABBITMQ_PASSWORD, REDIS_PASSWORD and API_TOKEN say where and how.
"""

import ipaddress
import json
import os
import random
import re
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PATIENCE = 180
OBJECTIVES = "planrelay.v1.objectives"


def ports(count):
    """Free ports below the range that the kernel gives to clients."""
    found = set()
    while len(found) < int(count):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port := random.randrange(20000, 32000)))
                found.add(port)
            except OSError:
                continue
    print(*found)


def host(subnet):
    """The address of this host that containers reach as host.docker.internal: the first one of the default bridge, or, where the engine
    is in a virtual machine, the loopback address."""
    bridge = str(next(ipaddress.ip_network(subnet).hosts()))
    try:
        with socket.create_server((bridge, 0)):
            print(bridge)
    except OSError:
        print("127.0.0.1")


# The model.


class Model(BaseHTTPRequestHandler):
    """Three steps for "number N": N*7 and N+100, with a tool each, and the sum of both results. A step waits before its first turn."""

    protocol_version = "HTTP/1.1"
    gate = threading.Event()
    lock = threading.Lock()
    waiting = 0

    def do_GET(self):
        if self.path == "/release":
            Model.gate.set()
        self.reply({"waiting": Model.waiting})

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        messages = request["messages"]
        system, prompt = messages[0]["content"], "\n".join(m["content"] for m in messages if isinstance(m.get("content"), str))
        if system.startswith("You write plans"):
            message = self.plan(int(re.search(r"number (\d+)", prompt)[1]))
        elif system.startswith("You do one step"):
            message = self.act(prompt)
        else:
            # The answer, made of what the steps came to.
            message = {"content": "The sum is " + re.findall(r"sum=(\d+)", prompt)[-1] + "."}
        usage = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
        finish = "tool_calls" if "tool_calls" in message else "stop"
        choice = {"index": 0, "message": {"role": "assistant", "content": None, **message}, "finish_reason": finish}
        self.reply({"id": "held", "object": "chat.completion", "created": 0, "model": "held", "choices": [choice], "usage": usage})

    @staticmethod
    def plan(n):
        steps = [
            {"step_number": 1, "description": f"work out {n}*7", "tool_hint": "calculate", "depends_on": []},
            {"step_number": 2, "description": f"work out {n}+100", "tool_hint": "calculate", "depends_on": []},
            {"step_number": 3, "description": "add the results", "tool_hint": None, "depends_on": [1, 2]},
        ]
        return {"content": json.dumps({"steps": steps})}

    @staticmethod
    def act(prompt):
        outputs = re.findall(r'<output tool="calculate">\s*(\d+)', prompt)
        step = prompt.rsplit("The step to do:", 1)[-1]
        if outputs:
            result = "value=" + outputs[-1]
        elif "add the results" in step:
            result = "sum=" + str(sum(int(value) for value in re.findall(r"value=(\d+)", prompt)))
        else:
            with Model.lock:
                Model.waiting += 1
            Model.gate.wait()
            with Model.lock:
                Model.waiting -= 1
            expression = re.search(r"work out (\S+)", step)[1]
            call = {"name": "calculate", "arguments": json.dumps({"expression": expression})}
            return {"tool_calls": [{"id": "call_0", "type": "function", "function": call}]}
        return {"content": json.dumps({"learned": "", "outcome": "succeeded", "result": result, "retryable": False})}

    def reply(self, value):
        body = json.dumps(value).encode()
        try:
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        except OSError:
            self.close_connection = True  # Whoever asked has been killed.

    def log_message(self, *_):
        pass


def model(address, port):
    server = ThreadingHTTPServer((address, int(port)), Model)
    server.daemon_threads = True
    server.serve_forever()


def ask(path):
    with urllib.request.urlopen(os.environ["MODEL_URL"] + path, timeout=10) as response:
        return json.load(response)["waiting"]


def held(count):
    until(f"{count} steps in hand", lambda: ask("/") >= int(count))
    print(ask("/"))


# The clients.


def until(what, done):
    deadline = time.monotonic() + PATIENCE
    while not done():
        if time.monotonic() > deadline:
            sys.exit(f"no {what} within {PATIENCE} s")
        time.sleep(0.2)


def store():
    import redis

    return redis.Redis(port=int(os.environ["REDIS_PORT"]), password=os.environ["REDIS_PASSWORD"], decode_responses=True)


def send(bodies):
    import pika

    credentials = pika.PlainCredentials("planrelay", os.environ["RABBITMQ_PASSWORD"])
    parameters = pika.ConnectionParameters("127.0.0.1", int(os.environ["AMQP_PORT"]), "/", credentials)
    with pika.BlockingConnection(parameters) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        for body in bodies:
            # Raises if the broker does not take it, or knows no such queue.
            channel.basic_publish("", OBJECTIVES, json.dumps(body), pika.BasicProperties(delivery_mode=2), mandatory=True)


def runs(prefix, count):
    return [(n, f"{prefix}-{n}") for n in range(1, int(count) + 1)]


def publish(prefix, count):
    send({"run_id": run, "objective": f"the sum for number {n}"} for n, run in runs(prefix, count))


def publish_offline(run):
    send([{"run_id": run, "objective": "What is 15% of 240?"}])


def events(client, run, kind):
    entries = client.xrange(f"planrelay:{{{run}}}:events")
    found = [fields for _, fields in entries if fields["type"] == kind]
    return [(fields.get("slot"), json.loads(fields.get("data") or "{}")) for fields in found]


def is_step(slot):
    return slot is not None and slot.isdigit()


def busiest(prefix, count):
    client, holding = store(), {}
    for _, run in runs(prefix, count):
        done = {slot for slot, _ in events(client, run, "step_finished")}
        # The latest claim of a step counts.
        claims = {slot: data["worker"] for slot, data in events(client, run, "claimed") if is_step(slot) and slot not in done}
        for worker in claims.values():
            holding[worker] = holding.get(worker, 0) + 1
    worker = max(holding, key=holding.get)
    print(holding[worker], worker)


def claimed_again(prefix, count):
    client, taken = store(), 0
    for _, run in runs(prefix, count):
        workers = {}
        for slot, data in events(client, run, "claimed"):
            if is_step(slot):
                workers.setdefault(slot, set()).add(data["worker"])
        taken += sum(len(who) > 1 for who in workers.values())
    print(taken)


def document(client, run):
    key = f"planrelay:{{{run}}}:result"
    until(f"result of {run}", lambda: client.exists(key))
    return json.loads(client.get(key))


def expect(what, found, expected):
    if found != expected:
        sys.exit(f"{what}: {found!r}, and not {expected!r}")


def results(prefix, count):
    client = store()
    for n, run in runs(prefix, count):
        result = document(client, run)
        values = [n * 7, n + 100, n * 7 + n + 100]
        expect(f"status of {run}", result["status"], "succeeded")
        expect(f"answer of {run}", result["final_response"], f"The sum is {values[2]}.")
        steps = [(step["step_number"], step["outcome"], step["result"]) for step in result["step_results"]]
        expect(
            f"steps of {run}",
            steps,
            [(1, "succeeded", f"value={values[0]}"), (2, "succeeded", f"value={values[1]}"), (3, "succeeded", f"sum={values[2]}")],
        )
        # One recorded end of each step and of the run, whoever else may have worked on it.
        ended = sorted(slot for slot, _ in events(client, run, "step_finished"))
        expect(f"ends of steps of {run}", ended, ["1", "2", "3"])
        expect(f"ends of {run}", len(events(client, run, "run_finished")), 1)
    keys = list(client.scan_iter(f"planrelay:{{{prefix}-*}}:result"))
    expect("results in Redis", len(keys), int(count))
    expect("dead letters", client.llen("planrelay:dead"), 0)


def result_offline(run):
    result = document(store(), run)
    expect("status", result["status"], "succeeded")
    expect("model", result["model"], "offline")
    if "36" not in result["final_response"]:
        sys.exit(f"no 36 in {result['final_response']!r}")


def store_version():
    info = store().info("server")
    print(f"Valkey {info['valkey_version']}" if "valkey_version" in info else f"Redis {info['redis_version']}")


def console(run):
    """What an operator asks of a console. Whatever is not 200 raises."""

    def get(path, **headers):
        request = urllib.request.Request(f"http://127.0.0.1:{os.environ['CONSOLE_PORT']}{path}", headers=headers)
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.read().decode()

    get("/healthz")
    get("/readyz")
    if 'planrelay_queue_consumers{queue="steps"}' not in get("/metrics"):
        sys.exit("the console does not count who consumes the steps")
    if run not in get("/v1/runs", Authorization="Bearer " + os.environ["API_TOKEN"]):
        sys.exit(f"{run} is not among the console's runs")
    try:
        get("/v1/runs")
        sys.exit("the console answers without the token")
    except urllib.error.HTTPError as error:
        expect("the console's answer without the token", error.code, 401)


if __name__ == "__main__":
    commands = [
        ports,
        host,
        model,
        held,
        publish,
        publish_offline,
        busiest,
        results,
        result_offline,
        claimed_again,
        store_version,
        console,
    ]
    named = {command.__name__.replace("_", "-"): command for command in commands}
    named["release"] = lambda: ask("/release")
    if len(sys.argv) < 2 or sys.argv[1] not in named:
        sys.exit(__doc__)
    named[sys.argv[1]](*sys.argv[2:])
