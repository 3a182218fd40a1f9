"""Every workload with Python. python3 bench/py_client.py <workload> <n>"""
import os
import socket
import struct
import sys
import time

if sys.argv[1] == "nothing":
    sys.exit()

ECHO, SINK, SOURCE, DROP, DIAL, UDP, LATE = map(int, os.environ["BENCH_PORTS"].split())
msg, chunk = b"x" * 64, b"x" * 65536


def clock():
    return time.clock_gettime(time.CLOCK_PROCESS_CPUTIME_ID), time.monotonic()


def connect(port, timeout=None):
    s = socket.create_connection(("127.0.0.1", port))
    s.settimeout(timeout)
    return s


def echo(s, n):
    t = clock()
    for _ in range(n):
        s.send(msg)
        s.recv(64)
    return t


def roundtrip(n):
    return echo(connect(ECHO), n)


def roundtrip_t(n):
    return echo(connect(ECHO, 5), n)


def late(n):
    return echo(connect(LATE), n)


def late_t(n):
    return echo(connect(LATE, 5), n)


def ready(s, n):
    time.sleep(0.05)
    t = clock()
    for _ in range(n):
        s.recv(64)
    return t


def recv_ready(n):
    return ready(connect(SOURCE), n)


def recv_ready_t(n):
    return ready(connect(SOURCE, 5), n)


def udp(n):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.connect(("127.0.0.1", UDP))
    return echo(s, n)


def udp_to(n):
    s, address = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), ("127.0.0.1", UDP)
    t = clock()
    for _ in range(n):
        s.sendto(msg, address)
        s.recvfrom(64)
    return t


def send64k(n):
    s = connect(SINK)
    t = clock()
    for _ in range(n):
        s.sendall(chunk)
    return t


def recv64k(n):
    s, left = connect(SOURCE), n * 65536
    t = clock()
    while left > 0:
        left -= len(s.recv(65536))
    return t


def recv_into64k(n):
    s, left, buffer = connect(SOURCE), n * 65536, bytearray(65536)
    t = clock()
    while left > 0:
        left -= s.recv_into(buffer)
    return t


def fd_message(n):
    a, b = socket.socketpair()
    level, kind, fd, size = socket.SOL_SOCKET, socket.SCM_RIGHTS, a.fileno(), socket.CMSG_SPACE(4)
    pack, unpack = struct.pack, struct.unpack
    t = clock()
    for _ in range(n):
        a.sendmsg([msg], [(level, kind, pack("i", fd))])
        _data, items, _flags, _address = b.recvmsg(64, size)
        os.close(unpack("i", items[0][2])[0])
    return t


def connect_close(n):
    address = ("127.0.0.1", DROP)
    t = clock()
    for _ in range(n):
        s = socket.socket()
        s.connect(address)
        s.close()
    return t


def accept(n):
    s = socket.create_server(("127.0.0.1", 0), backlog=4096)
    control = connect(DIAL)
    control.sendall(b"%d %d\n" % (s.getsockname()[1], n))
    assert control.recv(3) == b"ok\n"
    t = clock()
    for _ in range(n):
        conn, _address = s.accept()
        conn.close()
    return t


def wouldblock(n):
    s = connect(ECHO, 0)
    t = clock()
    for _ in range(n):
        try:
            s.recv(64)
        except BlockingIOError:
            pass
    return t


def resident():
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def memory(n, kind):
    every, before = [None] * n, resident()
    for i in range(n):
        every[i] = socket.socket(socket.AF_INET, kind)
    print((resident() - before) // n, 0)
    for s in every:
        s.close()


workloads = {
    "roundtrip": roundtrip, "roundtrip_t": roundtrip_t, "late": late, "late_t": late_t,
    "recv_ready": recv_ready, "recv_ready_t": recv_ready_t,
    "udp": udp, "udp_to": udp_to, "send64k": send64k, "recv64k": recv64k,
    "recv_into64k": recv_into64k, "fd_message": fd_message, "connect": connect_close,
    "accept": accept, "wouldblock_try": wouldblock, "wouldblock_pcall": wouldblock,
    "memory_udp": lambda n: memory(n, socket.SOCK_DGRAM), "memory_tcp": lambda n: memory(n, socket.SOCK_STREAM),
}
start = workloads[sys.argv[1]](int(sys.argv[2]))
if start:
    cpu, wall = clock()
    print("%.9f %.9f" % (cpu - start[0], wall - start[1]))
