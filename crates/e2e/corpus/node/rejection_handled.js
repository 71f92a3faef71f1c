process.on("unhandledRejection", (reason, promise) => {
  console.log("unhandled:", reason.message);
  promise.catch(() => {});
});
process.on("rejectionHandled", () => console.log("handled after all"));
Promise.reject(new Error("late"));
