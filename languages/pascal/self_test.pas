program SelfTest;

{$mode objfpc}{$H+}

uses
  SysUtils;

var
  number, total: Int64;
  i: Integer;
  note: TextFile;
  line: string;

begin
  total := 0;
  while not SeekEof(Input) do
  begin
    ReadLn(number);
    total := total + number;
  end;
  WriteLn('sum of stdin: ', total);

  Write('args: ');
  for i := 1 to ParamCount do
  begin
    if i > 1 then
      Write(', ');
    Write(ParamStr(i));
  end;
  WriteLn;

  AssignFile(note, 'note.txt');
  Rewrite(note);
  WriteLn(note, 'written by Pascal');
  CloseFile(note);
  Reset(note);
  ReadLn(note, line);
  CloseFile(note);
  WriteLn('file: ', line);

  WriteLn(StdErr, 'this line is not part of it');
  Halt(22);
end.
