// corpus: signal = 6
#include <chrono>
#include <thread>

int main()
{
    std::thread thread([] { std::this_thread::sleep_for(std::chrono::seconds(30)); });
}
