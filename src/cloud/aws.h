/* AWS credentials of this process: where they come from, and getting them. */
#ifndef PT_CLOUD_AWS_H
#define PT_CLOUD_AWS_H
#include "cloud/sign.h"
#include "net/http_client.h"

/* The first source that the environment names: "AWS_ACCESS_KEY_ID" (with AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN),
 * "AWS_WEB_IDENTITY_TOKEN_FILE" (with AWS_ROLE_ARN: IRSA; asks STS, AWS_ENDPOINT_URL_STS or the region's own), or
 * "AWS_CONTAINER_CREDENTIALS_FULL_URI" (EKS Pod Identity); NULL = none. */
const char *pt_aws_source(void);
/* The region that the environment names (AWS_REGION, AWS_DEFAULT_REGION), NULL = none. */
const char *pt_aws_region(void);
/* Get keys from that source; blocks on the network except for the first.  Token files are read anew, since the kubelet replaces
 * them. CREDENTIAL, CANCELLED, DEADLINE. */
int pt_aws_keys_get(struct pt_aws_keys *ret, const char *region, const struct pt_http_client_conf *http,
		    const struct pt_cancel *cancel, struct pt_err *err) PT_MUSTCHECK;
/* The domain of a region's services: "amazonaws.com", "amazonaws.com.cn". */
const char *pt_aws_domain(const char *region);
#endif
