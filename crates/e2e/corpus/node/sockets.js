{
const net = require("net");
const http = require("http");
console.log(Object.keys(require("os").networkInterfaces()));
const server = net.createServer((socket) => socket.pipe(socket)).listen("socket", () => {
  const client = net.connect("socket", () => client.end("over unix"));
  client.on("data", (data) => console.log(data.toString()));
  client.on("close", () => server.close(overLoopback));
});

function overLoopback() {
  const web = http.createServer((request, response) => response.end(request.url)).listen(0, "127.0.0.1", () => {
    const request = http.get({ host: "127.0.0.1", port: web.address().port, path: "/path", agent: false }, (response) => {
      console.log(response.statusCode);
      response.on("data", (data) => console.log(data.toString()));
      response.on("end", () => web.close());
    });
    request.on("error", (error) => { console.log(error.code); web.close(); });
  });
  web.on("error", (error) => console.log(error.code));
}
}

{
require("net").connect(80, "192.0.2.1").on("error", (error) => console.log(error.code, error.syscall));
}
