let () =
  let numbers = In_channel.input_lines stdin |> List.map int_of_string in
  Printf.printf "sum of stdin: %d\n" (List.fold_left ( + ) 0 numbers);
  let args = Sys.argv |> Array.to_list |> List.tl in
  Printf.printf "args: %s\n" (String.concat ", " args);
  Out_channel.with_open_text "note.txt" (fun note -> output_string note "written by OCaml\n");
  print_string ("file: " ^ In_channel.with_open_text "note.txt" In_channel.input_all);
  prerr_endline "this line is not part of it";
  exit 19
