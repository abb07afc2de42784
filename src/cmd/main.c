#include "config.h"
#include <stdio.h>
int main(void)
{
	puts("postern " PT_VERSION);
	return 0;
}
