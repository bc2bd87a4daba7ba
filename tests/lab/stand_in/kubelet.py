"""Stands for a kubelet: the commands of the pods of its node, as plain processes of that node.

    kubelet.py FOLDER

In FOLDER: ``kubelet.json`` (server, token, node, address, port), ``ca.pem``, ``tls.pem`` (its own
certificate and key). No image is fetched and nothing isolates: of a pod it takes the user and
groups, the environment, the working folder, files of secrets, and time to end. A folder of its logs
lies in /var/log/pods, as of each kubelet, and /stats/summary tells what it uses, as /proc has it.
An image whose name has ``missing`` in it cannot be pulled.
What it runs ends with it: of a pod that ran before it was started it says, as a kubelet does after
its node was, that its container is not there any more.
"""

import base64
import datetime
import http.server
import json
import os
import pathlib
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

FOLDER = pathlib.Path(sys.argv[1])
TOLD = json.loads((FOLDER / "kubelet.json").read_text())
NODE = TOLD["node"]
TRUST = ssl.create_default_context(cafile=FOLDER / "ca.pem")
LOGS = pathlib.Path("/var/log/pods")


def call(verb: str, path: str, body: Any = None, kind: str = "application/json") -> Any:
    request = urllib.request.Request(TOLD["server"] + path, method=verb)
    request.add_header("Authorization", "Bearer " + TOLD["token"])
    request.add_header("Content-Type", kind)
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(request, data, timeout=10, context=TRUST) as answer:
        return json.loads(answer.read())


def patch(path: str, body: Any) -> Any:
    return call("PATCH", path, body, "application/strategic-merge-patch+json")


def now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def heartbeat() -> None:
    node = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": NODE, "labels": {"kubernetes.io/hostname": NODE}},
    }
    try:
        call("POST", "/api/v1/nodes", node)
    except urllib.error.HTTPError as error:
        if error.code != 409:
            raise
    capacity = {"cpu": "64", "memory": "256Gi", "pods": "110", "nvidia.com/gpu": "8"}
    patch(f"/api/v1/nodes/{NODE}/status", {"status": {
        "addresses": [{"type": "InternalIP", "address": TOLD["address"]}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": TOLD["port"]}},
        "capacity": capacity, "allocatable": capacity,
        "conditions": [{"type": "Ready", "status": "True", "reason": "StandIn",
                        "lastHeartbeatTime": now()}],
    }})  # fmt: skip


class Pod:
    def __init__(self, of: Any) -> None:
        self.of, self.meta = of, of["metadata"]
        self.path = f"/api/v1/namespaces/{self.meta['namespace']}/pods/{self.meta['name']}"
        self.folder = FOLDER / "pods" / self.meta["uid"]
        self.log = self.folder / "log"
        name = f"{self.meta['namespace']}_{self.meta['name']}_{self.meta['uid']}"
        self.logs = LOGS / name
        self.ends_at: float | None = None
        self.done = False
        #: The number of the process, and of its session.
        self.process: int | None = None
        self.gone = threading.Event()
        self.started = ""
        threading.Thread(target=self.live, daemon=True).start()

    def stats(self) -> dict[str, Any]:
        """What its processes have used until now, and use, as /proc has it."""
        ticks, pages = 0, 0
        for entry in pathlib.Path("/proc").glob("[0-9]*/stat"):
            try:
                values = entry.read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it has ended
            if self.process is not None and int(values[3]) == self.process:
                ticks += sum(map(int, values[11:15]))  # its own, and its ended children's
                pages += int(values[21])
        cpu = ticks * 10**9 // os.sysconf("SC_CLK_TCK")
        return {
            "podRef": {it: self.meta[it] for it in ("name", "namespace", "uid")},
            "containers": [{
                "name": self.of["spec"]["containers"][0]["name"],
                "cpu": {"time": now(), "usageCoreNanoSeconds": cpu},
                "memory": {"time": now(), "workingSetBytes": pages * os.sysconf("SC_PAGESIZE")},
            }],
        }  # fmt: skip

    def status(self, phase: str, state: dict[str, Any]) -> None:
        container = self.of["spec"]["containers"][0]
        told: dict[str, Any] = {"phase": phase, "containerStatuses": [{
            "name": container["name"], "image": container["image"], "imageID": "stand-in",
            "ready": "running" in state, "restartCount": 0, "state": state,
        }], "startTime": self.started or now()}  # fmt: skip
        while not self.gone.is_set():
            try:
                # A state has one of three members: the other two are taken away.
                state_patch = dict.fromkeys(("waiting", "running", "terminated"))
                told["containerStatuses"][0]["state"] = {**state_patch, **state}
                patch(self.path + "/status", {"status": told})
                return
            except urllib.error.HTTPError as error:
                if error.code == 404:
                    return
                print(self.path, error, error.read()[:300], flush=True)
            except OSError as error:
                print(self.path, error, flush=True)
            time.sleep(1)

    def live(self) -> None:
        try:
            self.run()
        except Exception as error:
            print(self.path, type(error).__name__, error, flush=True)
            self.status("Failed", {"terminated": {"exitCode": 128, "reason": "StartError",
                                                  "message": str(error)}})  # fmt: skip
            self.finish()

    def run(self) -> None:
        spec = self.of["spec"]
        container = spec["containers"][0]
        self.folder.mkdir(parents=True, exist_ok=True)
        self.logs.mkdir(parents=True, exist_ok=True)
        self.log.touch()
        self.started = now()
        if self.of.get("status", {}).get("phase") not in (None, "Pending"):
            self.done = True
            self.status("Failed", {"terminated": {
                "exitCode": 137, "reason": "ContainerStatusUnknown",
                "message": "The container could not be located when the pod was terminated",
            }})  # fmt: skip
            self.finish()
            return
        if "missing" in container["image"]:
            waits = {"reason": "ErrImagePull", "message": f"{container['image']}: not found"}
            self.status("Pending", {"waiting": waits})
            while self.ends_at is None:
                time.sleep(0.1)
            self.finish()
            return
        places = self.volumes(spec, container)
        command = [self.placed(word, places) for word in container["command"]]
        who = spec["securityContext"]
        environment = {
            it["name"]: it.get("value", "").replace("$$", "$") for it in container["env"]
        }
        where = pathlib.Path(container.get("workingDir", "/"))
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            user=who["runAsUser"], group=who["runAsGroup"],
            extra_groups=who.get("supplementalGroups", []), start_new_session=True,
            cwd=where if where.is_dir() else "/",
            env={"PATH": "/usr/bin:/bin", **environment},
        )  # fmt: skip
        self.process = process.pid
        self.status("Running", {"running": {"startedAt": self.started}})
        threading.Thread(target=self.ender, args=[process], daemon=True).start()
        with self.log.open("ab") as log:
            for line in process.stdout or ():
                stamp = time.time_ns()
                second = datetime.datetime.fromtimestamp(stamp // 10**9, datetime.UTC)
                head = f"{second:%Y-%m-%dT%H:%M:%S}.{stamp % 10**9:09d}Z "
                log.write(head.encode() + line)
                log.flush()
        code = process.wait()
        code = code if code >= 0 else 128 - code
        self.done = True
        reason = "Error" if code else "Completed"
        self.status("Failed" if code else "Succeeded", {"terminated": {
            "exitCode": code, "reason": reason, "startedAt": self.started, "finishedAt": now(),
        }})  # fmt: skip
        while self.ends_at is None:
            time.sleep(0.1)
        self.finish()

    def volumes(self, spec: Any, container: Any) -> dict[str, str]:
        places = {}
        for mount in container["volumeMounts"]:
            volume = next(it for it in spec["volumes"] if it["name"] == mount["name"])
            if "secret" not in volume:
                continue
            name = volume["secret"]["secretName"]
            path = f"/api/v1/namespaces/{self.meta['namespace']}/secrets/{name}"
            while True:
                try:
                    data = call("GET", path)["data"]
                    break
                except OSError:  # it is made after the pod
                    if self.ends_at is not None:
                        raise
                    time.sleep(0.1)
            place = self.folder / mount["name"]
            place.mkdir(exist_ok=True)
            for key, value in data.items():
                (place / key).write_bytes(base64.b64decode(value))
                (place / key).chmod(volume["secret"].get("defaultMode", 0o644))
            places[mount["mountPath"]] = str(place)
        for folder in (FOLDER, FOLDER / "pods", self.folder):
            folder.chmod(0o711)
        return places

    def placed(self, word: str, places: dict[str, str]) -> str:
        for mount, place in places.items():
            if word == mount or word.startswith(mount + "/"):
                return place + word[len(mount) :]
        return word

    def end(self, grace: float) -> None:
        at = time.monotonic() + grace
        self.ends_at = at if self.ends_at is None else min(self.ends_at, at)

    def ender(self, process: subprocess.Popen[bytes]) -> None:
        told = False
        while not self.done:
            if self.ends_at is not None:
                try:
                    if not told:
                        os.killpg(process.pid, signal.SIGTERM)
                        told = True
                    if time.monotonic() >= self.ends_at:
                        os.killpg(process.pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            time.sleep(0.1)

    def finish(self) -> None:
        while self.ends_at is None:
            time.sleep(0.1)
        body = {"gracePeriodSeconds": 0, "preconditions": {"uid": self.meta["uid"]}}
        while True:
            try:
                call("DELETE", self.path, body)
                break
            except urllib.error.HTTPError as error:
                if error.code in (404, 409):
                    break
            except OSError:
                pass
            time.sleep(1)
        self.gone.set()
        self.logs.rmdir()


class Answers(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        if url.path == "/stats/summary":
            runs = [it for it in list(PODS.values()) if it.process and not it.done]
            said = json.dumps({"pods": [it.stats() for it in runs]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)
            return
        _, word, namespace, name, _ = url.path.split("/")
        pod = next((it for it in list(PODS.values()) if it.meta["namespace"] == namespace
                    and it.meta["name"] == name and not it.gone.is_set()), None)  # fmt: skip
        if word != "containerLogs" or pod is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        since = query.get("sinceTime", "").removesuffix("Z")
        with pod.log.open("rb") as log:
            while True:
                ended = pod.done
                line = log.readline()
                if line:
                    if line.decode(errors="replace") >= since:
                        self.chunk(line if "timestamps" in query else line.partition(b" ")[2])
                elif "follow" not in query or ended or pod.gone.is_set():
                    break
                else:
                    time.sleep(0.05)
        self.chunk(b"")

    def chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def log_message(self, *_: object) -> None:
        pass


PODS: dict[str, Pod] = {}


def main() -> None:
    server = http.server.ThreadingHTTPServer(("", TOLD["port"]), Answers)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(FOLDER / "tls.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    shutil.rmtree(FOLDER / "pods", ignore_errors=True)
    shutil.rmtree(LOGS, ignore_errors=True)
    beat = 0.0
    while True:
        try:
            if time.monotonic() > beat + 5:
                heartbeat()
                beat = time.monotonic()
            listed = call("GET", f"/api/v1/pods?fieldSelector=spec.nodeName={NODE}")["items"]
            for of in listed:
                uid = of["metadata"]["uid"]
                if uid not in PODS:
                    PODS[uid] = Pod(of)
                pod = PODS[uid]
                if "deletionTimestamp" in of["metadata"]:
                    pod.end(of["metadata"].get("deletionGracePeriodSeconds", 0))
            there = {of["metadata"]["uid"] for of in listed}
            for uid, pod in PODS.items():
                if uid not in there:
                    pod.end(0)  # taken away by force
        except urllib.error.HTTPError as error:
            print(error, error.read()[:300], flush=True)
        except OSError as error:
            print(error, flush=True)
        time.sleep(0.3)


main()
