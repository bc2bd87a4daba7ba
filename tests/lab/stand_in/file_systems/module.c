/* Stands for the source of a file system's client. */
static int revalidate(void *parent, void *name) { return parent != 0; }
int (*d_revalidate)(void *, void *) = revalidate;
__attribute__((section(".modinfo"), used, aligned(1))) static const char magic[] = "vermagic=" KERNEL " SMP";
