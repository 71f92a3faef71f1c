#!/usr/bin/env escript
-mode(compile).

main(Args) ->
    io:setopts([{encoding, unicode}]),
    io:format("sum of stdin: ~b~n", [sum(0)]),
    io:format("args: ~ts~n", [lists:join(", ", Args)]),
    ok = file:write_file("note.txt", "written by Erlang\n"),
    {ok, Note} = file:read_file("note.txt"),
    io:format("file: ~ts", [Note]),
    io:format(standard_error, "this line is not part of it~n", []),
    halt(27).

sum(Total) ->
    case io:fread("", "~d") of
        {ok, [Number]} -> sum(Total + Number);
        eof -> Total
    end.
