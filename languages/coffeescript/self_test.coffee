fs = require 'fs'

numbers = fs.readFileSync(0, 'utf8').trim().split('\n').map Number
console.log "sum of stdin: #{numbers.reduce (total, number) -> total + number}"
console.log "args: #{process.argv[2..].join ', '}"
fs.writeFileSync 'note.txt', 'written by CoffeeScript\n'
console.log "file: #{fs.readFileSync('note.txt', 'utf8').trim()}"
fs.writeSync 2, 'this line is not part of it\n'
process.exitCode = 42
