CREATE TABLE input (number INTEGER);
.import '|cat' input
SELECT 'sum of stdin: ' || sum(number) FROM input;

-- The program's arguments are the parameters ?1, ?2, and so on.
SELECT 'args: ' || ?1 || ', ' || ?2 || ', ' || ?3;

.once note.txt
SELECT 'written by SQL';
CREATE TABLE note (line TEXT);
.import note.txt note
SELECT 'file: ' || line FROM note;

.output stderr
SELECT 'this line is not part of it';
.exit 20
