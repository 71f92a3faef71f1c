import os
import socket
import threading

left, right = socket.socketpair()
left.sendall(b"pair")
print(right.recv(10))
server = socket.socket(socket.AF_UNIX)
server.bind("socket")
server.listen()


def serve():
    connection, _ = server.accept()
    with connection:
        connection.sendall(connection.recv(10).upper())


thread = threading.Thread(target=serve)
thread.start()
with socket.socket(socket.AF_UNIX) as client:
    client.connect("socket")
    client.sendall(b"over unix")
    print(client.recv(20))
thread.join()
try:
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.create_connection(tcp.getsockname(), 5):
        print("loopback works")
except OSError as error:
    print(error.strerror)
try:
    socket.create_connection(("192.0.2.1", 80), 5)
except OSError as error:
    print(error.strerror)
print(sorted(name for _, name in socket.if_nameindex()), socket.getdefaulttimeout())
