process.on("uncaughtException", (error, origin) => console.log("handled:", error.message, origin));
process.on("uncaughtExceptionMonitor", (error) => console.log("monitored:", error.message));
setTimeout(() => console.log("goes on"), 5);
throw new Error("thrown");
