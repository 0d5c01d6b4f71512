"""nginx accepts the configuration, and gixy finds no fault in it."""

import os
import re
import shutil
import socket
import subprocess
import time

import pytest

from conftest import ROOT, run, tool


def free_port():
    """A port without the digits 443, because gixy takes such a port for a TLS port."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        if "443" not in str(port):
            return port


def has_ipv6():
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


def configure(folder, server, port):
    """Copies the configuration with one of the two servers, and adapts its paths and ports to this machine."""
    shutil.copytree(ROOT / "nginx", folder)
    shutil.copy(ROOT / "nginx" / server, folder / "server.conf")
    run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=chat.example.com",
        "-keyout", folder / "privkey.pem", "-out", folder / "fullchain.pem")
    for file in folder.glob("*.conf"):
        text = file.read_text()
        text = text.replace("/etc/nginx/tls", str(folder)).replace("/var/log/nginx", str(folder))
        text = text.replace("/run/nginx.pid", f"{folder}/nginx.pid")
        if not has_ipv6():
            text = re.sub(r"listen \[::\].*;", "", text)
        text = re.sub(r"listen (\[::\]:)?(80|443) ", rf"listen \g<1>{port} ", text)
        if os.geteuid() != 0:
            # The folders that nginx was built with belong to root.
            kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            paths = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
            text = text.replace("http {", "http { " + paths, 1)
        file.write_text(text)
    return folder


@pytest.fixture(params=["server.conf", "server-plain.conf"])
def configuration(request, tmp_path):
    return configure(tmp_path / "nginx", request.param, free_port())


def test_nginx_accepts_it_without_a_warning(configuration):
    done = run(tool("nginx"), "-t", "-p", configuration, "-c", configuration / "nginx.conf")
    warnings = [line for line in done.stderr.splitlines() if re.search(r"\[(warn|alert|emerg)\]", line)]
    # Only root can change the user, so nginx may warn about that.
    assert [line for line in warnings if '"user" directive' not in line] == []


def test_gixy_finds_nothing(configuration):
    run(tool("gixy"), configuration / "nginx.conf")


def test_gixy_finds_a_fault_in_an_included_file(configuration):
    path = configuration / "locations.conf"
    path.write_text(path.read_text() + "\nlocation /old/ { return 301 https://$host$uri; }\n")
    assert run(tool("gixy"), configuration / "nginx.conf", check=False).returncode == 1


def greeting(port, *options):
    """What a TLS client is told in the handshake."""
    asked = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-servername", "chat.example.com", *options]
    return run(*asked, check=False, input="", errors="replace").stdout


def start_nginx(folder):
    """Returns the process and its port. Another program may take a free port first, so several are tried."""
    for attempt in range(5):
        port = free_port()
        configuration = configure(folder / f"nginx-{attempt}", "server.conf", port)
        command = [tool("nginx"), "-p", configuration, "-c", configuration / "nginx.conf", "-g", "daemon off;"]
        with open(folder / "nginx.log", "wb") as log:
            nginx = subprocess.Popen(command, stderr=log)
        deadline = time.monotonic() + 60
        while nginx.poll() is None and time.monotonic() < deadline:
            if "BEGIN CERTIFICATE" in greeting(port):
                return nginx, port
        nginx.kill()
        nginx.wait()
        said = (folder / "nginx.log").read_text()
        assert "Address already in use" in said, f"nginx does not answer: {said}"
    raise AssertionError("five free ports were taken by others")


def test_rest_is_offered_over_http2_and_old_tls_is_not(tmp_path):
    nginx, port = start_nginx(tmp_path)

    def hello(*options):
        return greeting(port, *options)

    try:
        assert "ALPN protocol: h2" in hello("-alpn", "h2,http/1.1")
        assert "ALPN protocol: http/1.1" in hello("-alpn", "http/1.1"), "WebSockets need HTTP/1.1"
        assert "New, TLSv1.2" in hello("-tls1_2")
        assert "BEGIN CERTIFICATE" not in hello("-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0")
    finally:
        nginx.terminate()
        nginx.wait()


def test_every_file_is_included():
    texts = {file.name: file.read_text() for file in (ROOT / "nginx").glob("*.conf")}
    included = {name for text in texts.values() for name in re.findall(r"^\s*.*include (\S+);", text, re.MULTILINE)}
    assert included | {"nginx.conf", "server-plain.conf"} == set(texts)
