(use-modules (ice-9 rdelim))

(define (sum)
  (let loop ((total 0))
    (let ((number (read)))
      (if (eof-object? number)
          total
          (loop (+ total number))))))

(format #t "sum of stdin: ~a\n" (sum))
(format #t "args: ~a\n" (string-join (cdr (command-line)) ", "))
(call-with-output-file "note.txt"
  (lambda (port) (display "written by Scheme\n" port)))
(format #t "file: ~a\n" (call-with-input-file "note.txt" read-line))
(display "this line is not part of it\n" (current-error-port))
(exit 31)
