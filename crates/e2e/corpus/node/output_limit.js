// corpus: limits = { output_bytes = 1000 }
for (let number = 0; number < 2000; number++) console.log("line", number);
