local total = 0
for line in io.lines() do
    total = total + math.tointeger(line)
end
print("sum of stdin: " .. total)
print("args: " .. table.concat(arg, ", "))

local note <close> = assert(io.open("note.txt", "w+"))
note:write("written by Lua\n")
note:seek("set")
print("file: " .. note:read("l"))

io.stderr:write("this line is not part of it\n")
os.exit(14, true)
