// corpus: signal = 10
#include <csignal>
#include <iostream>
#include <locale>

int main()
{
    std::signal(SIGUSR2, [](int number) { std::cout << "handled " << number << std::endl; });
    std::raise(SIGUSR2);
    std::cout << std::locale().name() << ' ' << std::locale("").name() << ' ' << 1234.5 << std::endl;
    std::raise(SIGUSR1);
}
