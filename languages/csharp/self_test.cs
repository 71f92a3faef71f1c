using System;
using System.IO;
using System.Linq;

public static class Program
{
    public static int Main(string[] args)
    {
        var numbers = Console.In.ReadToEnd().Split('\n').Where(line => line != "").Select(int.Parse);
        Console.WriteLine($"sum of stdin: {numbers.Sum()}");
        Console.WriteLine($"args: {string.Join(", ", args)}");
        File.WriteAllText("note.txt", "written by C#\n");
        Console.WriteLine($"file: {File.ReadAllText("note.txt").Trim()}");
        Console.Error.WriteLine("this line is not part of it");
        return 17;
    }
}
