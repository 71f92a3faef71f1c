sum =
  IO.stream()
  |> Stream.map(&(&1 |> String.trim() |> String.to_integer()))
  |> Enum.sum()

IO.puts("sum of stdin: #{sum}")
IO.puts("args: #{Enum.join(System.argv(), ", ")}")
File.write!("note.txt", "written by Elixir\n")
IO.write("file: #{File.read!("note.txt")}")
IO.puts(:stderr, "this line is not part of it")
System.halt(28)
