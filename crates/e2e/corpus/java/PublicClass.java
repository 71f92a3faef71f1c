// The file is named after its public class, and the class with `main` is run.
// corpus: args = ["one"]
package org.example;

public class PublicClass {
    static String greeting(String name) {
        return "hello, " + name;
    }
}

class Start {
    public static void main(String[] args) {
        System.out.println(PublicClass.greeting(args[0]) + " from " + Start.class.getName());
    }
}
