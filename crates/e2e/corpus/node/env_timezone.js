// corpus: env = { TZ = "America/New_York" }
console.log(new Date(0).toString(), Intl.DateTimeFormat().resolvedOptions().timeZone, new Date(2024, 6, 1).getTimezoneOffset());
process.env.TZ = "Asia/Tokyo";
console.log(new Date(0).getHours());
