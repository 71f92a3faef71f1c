// corpus: exit_code = 1
#include <string>

template <typename T> concept Small = sizeof(T) == 1;
template <Small T> void only(T) {}

int main()
{
    only(std::string());
    return undeclared;
}
