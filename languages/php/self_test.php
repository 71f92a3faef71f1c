<?php
echo "sum of stdin: ", array_sum(array_map('intval', file('php://stdin'))), "\n";
echo "args: ", implode(', ', array_slice($argv, 1)), "\n";
file_put_contents('note.txt', "written by PHP\n");
echo "file: ", file_get_contents('note.txt');
fwrite(STDERR, "this line is not part of it\n");
exit(12);
