with Ada.Command_Line; use Ada.Command_Line;
with Ada.Integer_Text_IO;
with Ada.Text_IO; use Ada.Text_IO;

procedure Main is
   Total  : Integer := 0;
   Number : Integer;
   Note   : File_Type;
begin
   while not End_Of_File loop
      Ada.Integer_Text_IO.Get (Number);
      Total := Total + Number;
   end loop;
   Put_Line ("sum of stdin:" & Total'Image);

   Put ("args: ");
   for I in 1 .. Argument_Count loop
      Put (Argument (I) & (if I < Argument_Count then ", " else ""));
   end loop;
   New_Line;

   Create (Note, Out_File, "note.txt");
   Put_Line (Note, "written by Ada");
   Reset (Note, In_File);
   Put_Line ("file: " & Get_Line (Note));
   Close (Note);

   Put_Line (Standard_Error, "this line is not part of it");
   Set_Exit_Status (36);
end Main;
