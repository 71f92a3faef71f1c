import java.io.File
import kotlin.system.exitProcess

fun main(args: Array<String>) {
    println("sum of stdin: ${generateSequence(::readLine).sumBy { it.toInt() }}")
    println("args: ${args.joinToString(", ")}")
    val note = File("note.txt")
    note.writeText("written by Kotlin\n")
    print("file: ${note.readText()}")
    System.err.println("this line is not part of it")
    exitProcess(40)
}
