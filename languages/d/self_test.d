import std.algorithm : map, sum;
import std.array : join;
import std.conv : to;
import std.file : readText, write;
import std.stdio;
import std.string : strip;

int main(string[] args)
{
    writeln("sum of stdin: ", stdin.byLine.map!(line => line.to!long).sum);
    writeln("args: ", args[1 .. $].join(", "));
    write("note.txt", "written by D\n");
    writeln("file: ", readText("note.txt").strip);
    stderr.writeln("this line is not part of it");
    return 26;
}
