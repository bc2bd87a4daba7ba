/* A stand-in for Pyxis in the lab's tests: it takes the route that Pyxis takes (fetched, checked,
 * built against the deployed Slurm, packed, installed, loaded by plugstack.conf) and adds the same
 * option to srun, but starts no container: a task finds the image's name in its environment. Of an
 * image that is not there it says what Pyxis 0.20 says, with Enroot's own line, and fails as Pyxis. */
#include <stdio.h>
#include <unistd.h>

#include <slurm/spank.h>

SPANK_PLUGIN(pyxis_stand_in, 1);

static char image[4096];

static int take(int value, const char *argument, int remote)
{
	int length = 0;

	(void)value;
	(void)remote;
	while (argument[length] != '\0' && length < (int)sizeof(image) - 1) {
		image[length] = argument[length];
		length++;
	}
	image[length] = '\0';
	return 0;
}

static struct spank_option option = {
	"container-image", "PATH", "[stand-in for Pyxis] the image that a container would use",
	1, 0, take,
};

int slurm_spank_init(spank_t spank, int count, char **arguments)
{
	(void)count;
	(void)arguments;
	if (spank_context() == S_CTX_SLURMD)
		return 0;
	return spank_option_register(spank, &option) == ESPANK_SUCCESS ? 0 : -1;
}

int slurm_spank_user_init(spank_t spank, int count, char **arguments)
{
	(void)spank;
	(void)count;
	(void)arguments;
	if (image[0] != '/' || access(image, R_OK) == 0)
		return 0;
	slurm_error("pyxis: child 1 failed with error code: 1");
	slurm_error("pyxis: failed to create container filesystem");
	slurm_error("pyxis: printing enroot log file:");
	slurm_error("pyxis:     [ERROR] No such file or directory: %s", image);
	return -1;
}

int slurm_spank_task_init(spank_t spank, int count, char **arguments)
{
	(void)count;
	(void)arguments;
	if (image[0] == '\0')
		return 0;
	return spank_setenv(spank, "STAND_IN_IMAGE", image, 1) == ESPANK_SUCCESS ? 0 : -1;
}
