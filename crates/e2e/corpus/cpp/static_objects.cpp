// corpus: exit_code = 5
#include <cstdlib>
#include <iostream>

struct Object {
    const char *name;
    explicit Object(const char *name) : name(name) { std::cout << "made " << name << '\n'; }
    ~Object() { std::cout << "destroyed " << name << '\n'; }
};

Object global("global");

int main()
{
    static Object local("local static");
    Object automatic("automatic, never destroyed");
    std::atexit([] { std::cout << "atexit\n"; });
    std::exit(5);
}
