(require '[clojure.string :as string])

(println "sum of stdin:" (reduce + (map parse-long (line-seq (java.io.BufferedReader. *in*)))))
(println "args:" (string/join ", " *command-line-args*))
(spit "note.txt" "written by Clojure\n")
(print "file:" (slurp "note.txt"))
(flush)
(binding [*out* *err*]
  (println "this line is not part of it"))
(System/exit 29)
